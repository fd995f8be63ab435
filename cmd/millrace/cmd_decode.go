package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/spf13/cobra"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode"
)

const (
	// decodeRows are written at a time when the format does not ask for more.
	decodeRows = 16 << 10
	// decodeKept bounds the memory that is kept from batch to batch.
	decodeKept = 64 << 20
)

func newDecodeCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "decode [-o table|json|csv|arrow|parquet] FILE|DIR|-...",
		Short:   "Print the flow rows of log files",
		GroupID: groupInvestigate,
		Long: `Decode prints the rows of Azure flow logs: VNet flow logs version 4, NSG flow logs
versions 1 and 2, as whole PT1H.json files or as regions cut out of one, plain or
gzip. Of a directory it takes all *.json and *.json.gz below, in sorted order, and
follows no symbolic links.

Rows go to standard output in the order of the input. What cannot be decoded goes to
standard error, one line each with file, byte offset and reason; the rest is still
printed and the exit code is 1. Offsets are those in the inflated file.

Files of any size take the same memory.`,
		Example: `  millrace decode PT1H.json
  millrace decode -o json PT1H.json.gz | jq 'select(.action == "denied")'
  millrace decode -o parquet ./insights-logs-flowlogflowevent > flows.parquet
  tail -c +12 PT1H.json | millrace decode -o csv -`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageErrorf("decode: want a file, a directory, or - for standard input")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			d := &decodeRun{stderr: cmd.ErrOrStderr(), stdin: cmd.InOrStdin()}
			return d.run(cmd.Context(), format, args, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "`format`: table, json (one object a line), csv, arrow (IPC stream) or parquet")
	return cmd
}

// decodeRun is one run of the command.
type decodeRun struct {
	stdin    io.Reader
	stderr   io.Writer
	out      rowWriter
	batch    *decode.Batch
	progress *decodeProgress
	refused  int // rejects and files that could not be read
}

func (d *decodeRun) run(ctx context.Context, format string, args []string, stdout io.Writer) error {
	out, err := newRowWriter(format, stdout)
	if err != nil {
		return err
	}
	d.out = out
	files := d.list(args)
	defer closeRoots(files)
	if len(files) == 0 {
		return &exitError{code: exitFailed}
	}
	alloc := decode.NewRecycler(memory.NewGoAllocator(), decodeKept)
	d.batch = decode.NewBatch(alloc)
	defer d.batch.Release()
	d.progress = newDecodeProgress(d.stderr, stdout, files)
	for _, f := range files {
		if err := d.file(ctx, f); err != nil {
			return err
		}
	}
	if err := d.flush(); err != nil {
		return err
	}
	d.progress.end()
	if err := out.close(); err != nil {
		return fmt.Errorf("decode: write: %w", err)
	}
	if d.refused > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

// input is one file to decode.
type input struct {
	name string // as shown, and the value of the column blob
	size int64  // 0 when unknown
	root *os.Root
	path string // within root, or as given
}

// list finds the files that the arguments name.
func (d *decodeRun) list(args []string) (files []input) {
	for _, arg := range args {
		if arg == "-" {
			files = append(files, input{name: "-"})
			continue
		}
		info, err := os.Stat(arg)
		if err != nil {
			d.fault(arg, err)
			continue
		}
		if !info.IsDir() {
			files = append(files, input{name: arg, size: info.Size(), path: arg})
			continue
		}
		below, err := listDir(arg)
		if err != nil {
			d.fault(arg, err)
		}
		files = append(files, below...)
	}
	return files
}

// listDir finds the logs below a directory. All access goes through os.Root, so
// nothing outside is read even when links change under way.
func listDir(dir string) ([]input, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	var files []input
	err = fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !e.Type().IsRegular() || !strings.HasSuffix(path, ".json") && !strings.HasSuffix(path, ".json.gz") {
			return nil
		}
		in := input{name: filepath.Join(dir, path), root: root, path: path}
		if info, err := e.Info(); err == nil {
			in.size = info.Size()
		}
		files = append(files, in)
		return nil
	})
	if err == nil && len(files) == 0 {
		err = errors.New("no *.json and no *.json.gz below")
	}
	if len(files) == 0 {
		root.Close()
	}
	slices.SortFunc(files, func(a, b input) int { return strings.Compare(a.name, b.name) })
	return files, err
}

func closeRoots(files []input) {
	for _, f := range files {
		if f.root != nil {
			f.root.Close() // closing again does no harm
		}
	}
}

func (d *decodeRun) open(f input) (io.ReadCloser, error) {
	switch {
	case f.name == "-" && f.path == "":
		return io.NopCloser(d.stdin), nil
	case f.root == nil:
		return os.Open(f.path)
	}
	file, err := f.root.Open(f.path)
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, errors.Join(err, errors.New("no regular file any more"))
	}
	return file, nil
}

// file decodes one file. Faults of the file are told and counted; an error is one
// that ends the run.
func (d *decodeRun) file(ctx context.Context, f input) error {
	in, err := d.open(f)
	if err != nil {
		d.fault(f.name, err)
		return nil
	}
	defer in.Close()
	r, err := decode.NewReader(d.progress.count(in), decode.Range{Blob: f.name})
	for err == nil {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("decode %q: %w", f.name, err)
		}
		var res decode.Result
		res, err = r.Next(d.batch)
		d.told(f.name, res)
		if d.batch.Rows() >= d.out.batchRows() {
			if err := d.flush(); err != nil {
				return err
			}
		}
		d.progress.step(res.Rows)
	}
	if !errors.Is(err, io.EOF) {
		d.fault(f.name, err)
	}
	return nil
}

func (d *decodeRun) flush() error {
	rec := d.batch.Take(0)
	if rec == nil {
		return nil
	}
	defer rec.Release()
	if err := d.out.write(rec); err != nil {
		return fmt.Errorf("decode: write: %w", err)
	}
	return nil
}

// fault tells that a file could not be read to its end.
func (d *decodeRun) fault(name string, err error) {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // the name is said once
	}
	d.refused++
	d.progress.clear()
	fmt.Fprintf(d.stderr, "millrace: decode %q: %v\n", name, err)
}

// told prints one line for each reject.
func (d *decodeRun) told(name string, res decode.Result) {
	for i, rej := range res.Rejects {
		d.refused++
		d.progress.clear()
		fmt.Fprintln(d.stderr, rejectLine(name, rej, res.RejectAt[i]))
	}
}

// rejectLine says what was refused and where. The offset is that of the refused
// text; a tuple's address follows in brackets.
func rejectLine(name string, rej pipeline.Reject, at int64) string {
	detail := rej.Detail
	if detail != "" {
		detail = ": " + detail
	}
	where := fmt.Sprintf("%s of %d bytes", rej.Scope, rej.Length)
	if rej.Scope == "tuple" {
		where = fmt.Sprintf("tuple %d of the record at byte %d", rej.Ordinal, rej.Offset)
	}
	return printable(fmt.Sprintf("%s: byte %d: %s%s (%s)", name, at, rej.Reason, detail, where))
}
