package audit

// Audit judges a run.
func Audit(b Book) Verdict {
	return Verdict{}
}
