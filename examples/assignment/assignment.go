// Package assignment says which arm a unit (a user) is served in a round: a table of hyperzero.
//
//	var table assignment.Table
//	err := json.Unmarshal(content, &table)      // live: {table: table.json, hash: sha256}
//	served, err := table.Assign("user-17", float64(time.Now().UnixNano())/1e9)
//	served.Parameters                           // serve these
//	served.Round                                // log an exposure only where it is not nil
//
// Copy this file; it needs the standard library only. vectors.json has what it must answer.
package assignment

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
)

// Arm is one row of a table: units whose place is from From to To.
type Arm struct {
	Candidate  int64          `json:"candidate"`
	From       float64        `json:"from"`
	To         float64        `json:"to"`
	Parameters map[string]any `json:"parameters"`
}

// Stamp says until when a plan is served.
type Stamp struct {
	ValidFrom  *float64 `json:"valid_from"`
	ValidUntil *float64 `json:"valid_until"`
}

// Table is what `hyperzero run` writes.
type Table struct {
	Kind            string   `json:"kind"`
	Version         int      `json:"version"`
	Hash            string   `json:"hash"`
	Salt            string   `json:"salt"`
	Round           *int64   `json:"round"`
	ExperimentShare *float64 `json:"experiment_share"`
	Stamp           *Stamp   `json:"stamp"`
	Arms            []Arm    `json:"arms"`
}

// Served is what a unit gets. Log an exposure only where Round is not nil.
type Served struct {
	Candidate  int64
	Round      *int64
	Parameters map[string]any
}

// Place is a unit's place in [0, 1): the first 13 hexadecimal digits of SHA-256 over
// salt/round/unit, as a fraction of 16^13.
func Place(unit, round, salt string) float64 {
	digest := sha256.Sum256([]byte(salt + "/" + round + "/" + unit))
	first, _ := strconv.ParseUint(hex.EncodeToString(digest[:])[:13], 16, 64)
	return float64(first) / float64(uint64(1)<<52)
}

// TakesPart says whether a unit is among the share of all users for whom the experiment is.
func TakesPart(unit string, share float64, salt string) bool {
	return Place(unit, "experiment", salt) < share
}

// Assign gives candidate, parameters and round of a unit; now is in seconds since 1970.
func (t Table) Assign(unit string, now float64) (Served, error) {
	if t.Kind != "hyperzero-torch assignment table" || t.Version != 4 || t.Hash != "sha256" || len(t.Arms) == 0 {
		return Served{}, errors.New("expected an assignment table of version 4 with the hash sha256")
	}
	nobody := Served{Candidate: 0, Parameters: t.Arms[0].Parameters}
	if unit == "" || t.Round == nil {
		return nobody, nil
	}
	if t.Stamp != nil && t.Stamp.ValidFrom != nil && t.Stamp.ValidUntil != nil {
		if now < *t.Stamp.ValidFrom || now >= *t.Stamp.ValidUntil {
			return nobody, nil
		}
	}
	if t.ExperimentShare != nil && !TakesPart(unit, *t.ExperimentShare, t.Salt) {
		return nobody, nil
	}
	at := Place(unit, strconv.FormatInt(*t.Round, 10), t.Salt)
	for _, arm := range t.Arms {
		if at < arm.To {
			return Served{Candidate: arm.Candidate, Round: t.Round, Parameters: arm.Parameters}, nil
		}
	}
	return nobody, nil
}
