package clickhouse

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/secret"
)

// login is who a sink is to its servers. The password may change while the sink is
// used; the user may not: a server shows the INSERTs that run to their own user
// only, and Fence has to see those of before.
type login struct {
	user     string // never empty
	password atomic.Pointer[secret.Secret]
}

func newLogin(user string, password secret.Secret) (*login, error) {
	if hasBreak(user) || hasBreak(password.Reveal()) {
		return nil, errBreak
	}
	if user == "" {
		user = "default"
	}
	l := &login{user: user}
	l.password.Store(&password)
	return l, nil
}

var errBreak = errors.New("user or password holds a line break")

func hasBreak(s string) bool { return strings.ContainsAny(s, "\r\n\x00") }

// secret gives what the next request says.
func (l *login) secret() secret.Secret { return *l.password.Load() }

// Renew changes the password, at every server, from the call of apply on. Requests
// under way end as they began.
//
// Errors: a line break in it.
func (s *Sink) Renew(password secret.Secret) (apply func(), err error) {
	if hasBreak(password.Reveal()) {
		return nil, fmt.Errorf("clickhouse: %w", errBreak)
	}
	return func() {
		if s.login.secret().Equal(password) {
			return
		}
		s.login.password.Store(&password)
		for _, n := range s.nodes {
			if _, native := n.wire.(*nativeWire); native {
				_ = n.wire.close() // pools that log in with the old one; what is said is of no use
			}
		}
	}, nil
}

// waiting makes a login that is refused to a running pipeline transient: somebody is
// changing the password, and what was to land waits for that. At a start it is a
// fault.
func waiting(err error) error {
	if codeOf(err) != codeAuthenticationFailed {
		return err
	}
	return fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
}
