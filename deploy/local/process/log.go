package process

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

const (
	defaultMaxLogBytes = 4 << 20
	tailBytes          = 4 << 10
)

// logFile is a file of bounded size that also remembers its last bytes. The
// copying goroutines of standard output and error both write to it.
type logFile struct {
	path string
	max  int64

	mu   sync.Mutex
	file *os.File // Nil without a path.
	size int64
	tail []byte
}

func openLog(path string, limit int64) (*logFile, error) {
	l := &logFile{path: path, max: limit}
	if l.max <= 0 {
		l.max = defaultMaxLogBytes
	}
	if path == "" {
		return l, nil
	}
	if err := makeLogDir(path); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, l.open()
}

// open appends, so that a child that is restarted keeps its history.
func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write never fails: a full disk must not stop the child, and the tail is
// still there for the message.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remember(b)
	if l.file == nil {
		return len(b), nil
	}
	if l.size+int64(len(b)) > l.max && l.size > 0 {
		l.rotate()
	}
	if l.file != nil {
		n, _ := l.file.Write(b)
		l.size += int64(n)
	}
	return len(b), nil
}

func (l *logFile) remember(b []byte) {
	if len(b) > tailBytes {
		b = b[len(b)-tailBytes:]
	}
	if over := len(l.tail) + len(b) - tailBytes; over > 0 {
		l.tail = append(l.tail[:0], l.tail[over:]...)
	}
	l.tail = append(l.tail, b...)
}

// rotate keeps one old file. When that does not work the log ends here.
func (l *logFile) rotate() {
	_ = l.file.Close()
	l.file = nil
	if os.Rename(l.path, l.path+".1") == nil {
		_ = l.open()
	}
}

// Tail returns the last lines, the first of them whole.
func (l *logFile) Tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := string(l.tail)
	if len(l.tail) < tailBytes {
		return text
	}
	if _, rest, ok := strings.Cut(text, "\n"); ok {
		return rest
	}
	return text
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
