package assignment

import (
	"encoding/json"
	"os"
	"testing"
)

func TestVectors(t *testing.T) {
	content, err := os.ReadFile("vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Places []struct {
			Unit, Round, Salt string
			Place             float64
		}
		Parts []struct {
			Unit, Salt string
			Share      float64
			Part       bool
		}
		Table       Table
		Now         float64
		Assignments []struct {
			Unit      string
			Now       float64
			Candidate int64
			Round     *int64
		}
	}
	if err := json.Unmarshal(content, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors.Places {
		if got := Place(v.Unit, v.Round, v.Salt); got != v.Place {
			t.Errorf("Place(%q, %s, %q) = %v, expected %v", v.Unit, v.Round, v.Salt, got, v.Place)
		}
	}
	for _, v := range vectors.Parts {
		if got := TakesPart(v.Unit, v.Share, v.Salt); got != v.Part {
			t.Errorf("TakesPart(%q, %v, %q) = %v", v.Unit, v.Share, v.Salt, got)
		}
	}
	for _, v := range vectors.Assignments {
		got, err := vectors.Table.Assign(v.Unit, v.Now)
		same := (got.Round == nil) == (v.Round == nil) && (v.Round == nil || *got.Round == *v.Round)
		if err != nil || got.Candidate != v.Candidate || !same {
			t.Errorf("Assign(%q) = %+v, %v", v.Unit, got, err)
		}
	}
	if len(vectors.Places) < 20 || len(vectors.Assignments) < 20 {
		t.Error("vectors are missing")
	}
}
