package clickhouse

import (
	"testing"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/sinks/sinktest"
)

// leastTarget lands as a user with few rights, and looks as "admin".
type leastTarget struct {
	target
	config Config
}

func (g leastTarget) Open(t testing.TB) pipeline.Sink { return open(t, g.config) }

// The rights that the documents name are enough: those of "least" to make the tables
// and to land, SELECT and INSERT ("lander") to land in tables that are there. Neither
// user may do anything else.
func TestLeastRightsAreEnough(t *testing.T) {
	admin, ch := strangeServer(t)
	for user, wire := range map[string]string{"least": "http", "lander": "tcp"} {
		t.Run(user, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Target {
				c := admin
				c.URL, c.Database = urlOver(ch, wire), config(t, admin.URL).Database
				few := c
				few.User, few.Password = user, secret.Secret{}
				maker := few
				if user == "lander" {
					maker = c
				}
				if err := open(t, maker).Setup(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				s := open(t, few)
				if err := s.CheckSettings(t.Context()); err != nil {
					t.Fatal(err)
				}
				mayNot(t, s, c.Database)
				return leastTarget{newTarget(t, open(t, c), ch.HTTPURL), few}
			})
		})
	}
}

// mayNot looks that the server denies a user the rest.
func mayNot(t *testing.T, s *Sink, database string) {
	t.Helper()
	for _, more := range []string{
		"DROP TABLE flows", "TRUNCATE TABLE flows", "DROP DATABASE " + database, "CREATE USER x", "SELECT * FROM system.users", "SYSTEM SHUTDOWN",
		"SELECT * FROM file('/etc/passwd', 'RawBLOB')", "SELECT * FROM url('http://127.0.0.1:1/', 'RawBLOB')", "GRANT SELECT ON *.* TO least",
	} {
		if _, err := s.Exec(t.Context(), more); codeOf(err) != 497 {
			t.Errorf("the user may %s: %v", more, err)
		}
	}
}
