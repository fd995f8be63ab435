// Package faults proves "exactly once" with real processes: they are killed at
// chosen and at random moments, frozen, cut from each other, their disks fill up and
// their files rot, and then the tables hold what was written, once.
//
// There are only tests in it, over package jobtest. Each has a short form that runs
// with the others; `make` has a target for the full form, which prints its figures.
package faults
