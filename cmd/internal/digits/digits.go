// Package digits writes numbers for people, the same wherever a command prints one.
package digits

import (
	"fmt"
	"strings"
)

// Thousands writes 1234567 as 1,234,567.
func Thousands[T int64 | uint64](n T) string {
	s := fmt.Sprint(n)
	var b strings.Builder
	for i, r := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(r)
	}
	return b.String()
}
