module example.com/assignment

go 1.21
