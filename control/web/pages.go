package web

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"path"
	"slices"
	"strings"
)

//go:embed all:dist
var dist embed.FS

// ErrNotBuilt is returned by Built in a program that was built without pages.
var ErrNotBuilt = errors.New(`the pages are not built into this program: run "make build"`)

// The sites that app/ is built into.
const (
	CustomerSite = "site"
	Console      = "console"
)

const (
	indexName  = "index.html"
	routesName = "routes.json"
	// assets is where files are whose names change with their content.
	assets = "assets/"
)

// Built returns the pages of a site as they were built into this program, or ErrNotBuilt.
func Built(site string) (*Pages, error) {
	dir, err := fs.Sub(dist, "dist/"+site)
	if err != nil {
		return nil, fmt.Errorf("pages of %s: %w", site, err)
	}
	if _, err := fs.Stat(dir, indexName); err != nil {
		return nil, fmt.Errorf("pages of %s: %w", site, ErrNotBuilt)
	}
	return ReadPages(dir)
}

// Pages are the files of one site, ready to be sent. They do not change.
type Pages struct {
	files  map[string]*file // by path, without a slash at the beginning
	routes [][]string       // paths at which there is a page, in parts; "{" stands for any one part
}

// file is one file with what it is sent as.
type file struct {
	mediaType string
	etag      string
	immutable bool // another content would have another name
	plain     []byte
	encoded   []encoded // smaller ones, the smallest first
}

type encoded struct {
	coding string
	body   []byte
}

// ReadPages reads a directory that app/ was built into: index.html, which is sent for every page;
// routes.json, which says at which paths there is one; assets/; and beside each file that gets
// smaller by it the same with the suffix .br or .gz.
func ReadPages(dir fs.FS) (*Pages, error) {
	p := &Pages{files: map[string]*file{}}
	err := fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name == routesName || suffixOf(name) != "" {
			return err
		}
		f, err := readFile(dir, name)
		p.files[name] = f
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read pages: %w", err)
	}
	if p.files[indexName] == nil {
		return nil, fmt.Errorf("read pages: there is no %s", indexName)
	}
	text, err := fs.ReadFile(dir, routesName)
	if err != nil {
		return nil, fmt.Errorf("read pages: %w", err)
	}
	routes := map[string]string{}
	if err := json.Unmarshal(text, &routes); err != nil {
		return nil, fmt.Errorf("read pages: %s: %w", routesName, err)
	}
	for _, pattern := range routes {
		p.routes = append(p.routes, parts(pattern))
	}
	return p, nil
}

// suffixOf returns what marks a file as another one's encoded form; "" if it is none.
func suffixOf(name string) string {
	if ext := path.Ext(name); ext == ".br" || ext == ".gz" {
		return ext
	}
	return ""
}

func readFile(dir fs.FS, name string) (*file, error) {
	plain, err := fs.ReadFile(dir, name)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(plain)
	f := &file{
		mediaType: mediaType(name), immutable: strings.HasPrefix(name, assets), plain: plain,
		// Weak, because it is the same for all encodings.
		etag: `W/"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
	}
	for suffix, coding := range map[string]string{".br": "br", ".gz": "gzip"} {
		body, err := fs.ReadFile(dir, name+suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f.encoded = append(f.encoded, encoded{coding, body})
	}
	slices.SortFunc(f.encoded, func(a, b encoded) int { return len(a.body) - len(b.body) })
	return f, nil
}

// mediaType is by the name alone, and knows what is built: what a machine's own tables say must
// not change what browsers are told.
func mediaType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".txt":
		return "text/plain; charset=utf-8"
	case ".webmanifest":
		return "application/manifest+json"
	default:
		if t := mime.TypeByExtension(ext); t != "" {
			return t
		}
		return "application/octet-stream"
	}
}

// parts splits a path into what is between its slashes.
func parts(p string) []string {
	p = strings.Trim(p, "/")
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

// hasPage reports whether there is a page at a path.
func (p *Pages) hasPage(at string) bool {
	want := parts(at)
	return slices.ContainsFunc(p.routes, func(pattern []string) bool {
		return slices.EqualFunc(pattern, want, func(pattern, part string) bool {
			return pattern == part || strings.HasPrefix(pattern, "{") && part != ""
		})
	})
}

// encodedFor returns the smallest form of a file that a client takes, and its coding; "" for none.
func (f *file) encodedFor(acceptEncoding []string) (body []byte, coding string) {
	for _, e := range f.encoded {
		if accepts(acceptEncoding, e.coding) {
			return e.body, e.coding
		}
	}
	return f.plain, ""
}

// accepts reports whether Accept-Encoding names a coding, and not with a weight of 0. The star is not
// taken at its word: clients that send it alone may know no coding of ours.
func accepts(headers []string, coding string) bool {
	for _, header := range headers {
		for one := range strings.SplitSeq(header, ",") {
			name, weight, _ := strings.Cut(one, ";")
			if !strings.EqualFold(strings.TrimSpace(name), coding) {
				continue
			}
			weight = strings.ReplaceAll(strings.TrimSpace(weight), " ", "")
			return strings.Trim(strings.TrimPrefix(weight, "q="), "0.") != "" || weight == ""
		}
	}
	return false
}
