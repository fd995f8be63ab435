package blob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/pipeline"
)

// DirectoryConfig is a folder of the local disk that holds blobs as files.
type DirectoryConfig struct {
	Path string
	// Account and Container say that the folder holds the blobs of one container: a
	// file's name below the folder is the blob's. Both empty: the first two folders
	// below are account and container.
	Account, Container string
}

// DirectoryStore reads blobs out of folders. It implements Store; ListPage and Walk
// name what is there.
//
// Nothing outside of the folders can be read: each is opened as an os.Root, links
// are passed over wherever they point, and so is whatever is no regular file. Files
// may grow while they are read. A version is told by length and time of change.
type DirectoryStore struct {
	whole map[[2]string]*os.Root // by account and container
	trees *os.Root               // holds account/container/…; may be nil

	mu      sync.Mutex
	skipped map[string]map[string]bool // names by why, so that each is counted once
}

// Why a file is passed over.
const (
	SkippedLink    = "link"    // a symbolic link
	SkippedSpecial = "special" // no regular file: a device, a pipe, a socket
	SkippedName    = "name"    // a name that no blob can have
	SkippedPlace   = "place"   // not below account and container
	SkippedGzip    = "gzip"    // ends with .gz: what has landed is told by offsets in the plain text
)

// maxSkipped bounds the names that are remembered of each kind.
const maxSkipped = 10_000

// NewDirectoryStore opens the folders. Close it.
//
// Errors: all faults at once: a folder that cannot be opened, two for one container.
func NewDirectoryStore(configs []DirectoryConfig) (*DirectoryStore, error) {
	s := &DirectoryStore{whole: map[[2]string]*os.Root{}, skipped: map[string]map[string]bool{}}
	var faults []error
	for _, c := range configs {
		root, err := os.OpenRoot(c.Path)
		key := [2]string{c.Account, c.Container}
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("open directory of blobs: %w", err))
		case c.Account == "" && c.Container == "" && s.trees == nil:
			s.trees = root
		case c.Account == "" && c.Container == "":
			faults = append(faults, fmt.Errorf("directory %q: it is the second one whose folders name account and container: say which they are", c.Path), root.Close())
		case !validSegment(c.Account) || !validSegment(c.Container):
			faults = append(faults, fmt.Errorf("directory %q: account %q and container %q: want two names without slashes", c.Path, c.Account, c.Container), root.Close())
		case s.whole[key] != nil:
			faults = append(faults, fmt.Errorf("directory %q: there is another one for account %q, container %q", c.Path, c.Account, c.Container), root.Close())
		default:
			s.whole[key] = root
		}
	}
	if err := errors.Join(faults...); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close gives the folders back.
func (s *DirectoryStore) Close() {
	for _, root := range s.whole {
		_ = root.Close() // it was only read
	}
	if s.trees != nil {
		_ = s.trees.Close()
	}
}

// Skipped counts the files that were passed over, by why.
func (s *DirectoryStore) Skipped() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := map[string]int{}
	for why, names := range s.skipped {
		counts[why] = len(names)
	}
	return counts
}

func (s *DirectoryStore) skip(why, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.skipped[why] == nil {
		s.skipped[why] = map[string]bool{}
	}
	if len(s.skipped[why]) < maxSkipped {
		s.skipped[why][name] = true
	}
}

func validSegment(s string) bool { return validPath(s) && !strings.Contains(s, "/") }

// place gives the folder that holds the container, and the name of path in it.
func (s *DirectoryStore) place(account, container, path string) (*os.Root, string) {
	if root := s.whole[[2]string{account, container}]; root != nil {
		return root, path
	}
	return s.trees, account + "/" + container + "/" + path
}

// Get opens a file and gives a part of it.
func (s *DirectoryStore) Get(ctx context.Context, id pipeline.BlobID, offset, count int64, ifMatch string) (Response, error) {
	fail := func(kind Kind, detail string) (Response, error) {
		return Response{}, &Error{Op: "get blob", Object: id.String(), Offset: offset, Kind: kind, Detail: detail, context: contextError(ctx.Err())}
	}
	root, name := s.place(id.Account, id.Container, id.Path)
	if root == nil || !validSegment(id.Account) || !validSegment(id.Container) || !validPath(id.Path) || !fs.ValidPath(name) {
		return fail(KindOther, "no name of a file in the configured directories")
	}
	f, info, err := openRegular(root, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(KindMissing, "there is no such file")
	case errors.Is(err, fs.ErrPermission):
		return fail(KindRefused, "the file may not be read by this user")
	case errors.Is(err, errNotRegular):
		return fail(KindOther, err.Error())
	case err != nil:
		return fail(KindUnavailable, "the file cannot be opened: "+cause(err))
	}
	etag, size := version(info), info.Size()
	switch {
	case ifMatch != "" && ifMatch != etag:
		f.Close()
		return fail(KindChanged, "the file has changed")
	case offset > 0 && offset >= size:
		f.Close()
		return fail(KindOutOfRange, "the file ends before")
	}
	length := size - offset
	if count > 0 {
		length = min(length, count)
	}
	body := struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, offset, length), f}
	return Response{Body: body, ETag: etag, Offset: offset, Length: length, Total: size}, nil
}

var errNotRegular = errors.New("it is no regular file")

// openRegular opens a regular file that is no link. A pipe that took its place would
// not be waited for.
func openRegular(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, errNotRegular
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || !os.SameFile(before, info)) {
		err = errNotRegular
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func version(info fs.FileInfo) string {
	return fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size())
}

// cause is the text of an error without the file's name, which stands before it.
func cause(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err.Error()
	}
	return err.Error()
}

// ListPage names the files of a folder: prefix is "" or ends with a slash. With the
// delimiter "/" it gives the folders in it, too, else everything below. There is one
// page.
//
// Errors: *Error.
func (s *DirectoryStore) ListPage(ctx context.Context, account, container, prefix, delimiter, _ string,
	blob func(path string, size int64, etag string), folder func(prefix string),
) (next string, err error) {
	root, name := s.place(account, container, prefix)
	name = cmp.Or(strings.TrimSuffix(name, "/"), ".")
	fail := func(kind Kind, detail string) (string, error) {
		return "", &Error{Op: "list directory", Object: account + "/" + container + "/" + prefix, Offset: -1, Kind: kind, Detail: detail, context: contextError(ctx.Err())}
	}
	if root == nil || !fs.ValidPath(name) || prefix != "" && !strings.HasSuffix(prefix, "/") {
		return fail(KindOther, "no folder in the configured directories")
	}
	err = s.walk(ctx, root, name, delimiter == "", func(at string, info fs.FileInfo) {
		below := prefix + strings.TrimPrefix(strings.TrimPrefix(at, name), "/")
		if name == "." {
			below = at
		}
		switch {
		case info.IsDir() && folder != nil:
			folder(below + "/")
		case !info.IsDir() && blob != nil:
			blob(below, info.Size(), version(info))
		}
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(KindMissing, "there is no such folder")
	case err != nil:
		return fail(KindOther, cause(err))
	}
	return "", nil
}

// walk calls visit with what stands in a folder, sorted by name: regular files, and
// folders unless deep, which goes down into them instead.
func (s *DirectoryStore) walk(ctx context.Context, root *os.Root, at string, deep bool, visit func(name string, info fs.FileInfo)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := fs.ReadDir(root.FS(), at)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(at, e.Name())
		switch mode := e.Type(); {
		case mode&fs.ModeSymlink != 0:
			s.skip(SkippedLink, name)
		case !validSegment(e.Name()):
			s.skip(SkippedName, name)
		case mode.IsRegular() && strings.HasSuffix(e.Name(), ".gz"):
			s.skip(SkippedGzip, name)
		case mode.IsDir() && deep:
			if err := s.walk(ctx, root, name, true, visit); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		case mode.IsDir() || mode.IsRegular():
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // it went away meanwhile
			}
			if err != nil {
				return err
			}
			visit(name, info)
		default:
			s.skip(SkippedSpecial, name)
		}
	}
	return nil
}

// Containers names the account and container of every folder that holds blobs.
func (s *DirectoryStore) Containers(ctx context.Context) ([]pipeline.BlobID, error) {
	var all []pipeline.BlobID
	for key := range s.whole {
		all = append(all, pipeline.BlobID{Account: key[0], Container: key[1]})
	}
	below := func(at string) (folders []string, err error) {
		err = s.walk(ctx, s.trees, at, false, func(name string, info fs.FileInfo) {
			if info.IsDir() {
				folders = append(folders, name)
				return
			}
			s.skip(SkippedPlace, name)
		})
		return folders, err
	}
	if s.trees != nil {
		accounts, err := below(".")
		if err != nil {
			return nil, fmt.Errorf("list directory of blobs: %w", err)
		}
		for _, account := range accounts {
			containers, err := below(account)
			if err != nil {
				return nil, fmt.Errorf("list directory of blobs: %w", err)
			}
			for _, c := range containers {
				if id := (pipeline.BlobID{Account: account, Container: path.Base(c)}); s.whole[[2]string{id.Account, id.Container}] == nil {
					all = append(all, id)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b pipeline.BlobID) int { return cmp.Compare(a.String(), b.String()) })
	return all, nil
}

// Walk calls visit with every file, container by container.
func (s *DirectoryStore) Walk(ctx context.Context, visit func(id pipeline.BlobID, size int64, version string)) error {
	containers, err := s.Containers(ctx)
	if err != nil {
		return err
	}
	for _, c := range containers {
		_, err := s.ListPage(ctx, c.Account, c.Container, "", "", "", func(path string, size int64, etag string) {
			id := c
			id.Path = path
			visit(id, size, etag)
		}, nil)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
