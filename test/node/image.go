//go:build linux

package node

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
)

// Repository and Tag name the image in the node's store. Its name with a digest is what writeImage returns.
const (
	Repository = "registry.test/openclaw-gateway"
	Tag        = Repository + ":test"
)

// writeImage writes an image, in OCI's layout, in which there is one program: as node, which is what the
// operator's Deployment starts, as gateway and as pause. It returns the image's name with its digest.
func writeImage(file, program string) (string, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return "", fmt.Errorf("node: %w", err)
	}
	layer, err := archive(
		entry{name: "usr/", dir: true}, entry{name: "usr/bin/", dir: true},
		entry{name: "usr/bin/node", content: content},
		entry{name: "usr/bin/gateway", link: "node"}, entry{name: "pause", link: "usr/bin/node"},
		entry{name: "tmp/", dir: true}, entry{name: "data/", dir: true}, entry{name: "etc/", dir: true},
	)
	if err != nil {
		return "", err
	}
	var blobs []entry
	blob := func(kind string, content []byte) map[string]any {
		sum := sha256.Sum256(content)
		name := hex.EncodeToString(sum[:])
		blobs = append(blobs, entry{name: "blobs/sha256/" + name, content: content})
		return map[string]any{"mediaType": kind, "digest": "sha256:" + name, "size": len(content)}
	}
	layerBlob := blob("application/vnd.oci.image.layer.v1.tar", layer)
	config := blob("application/vnd.oci.image.config.v1+json", encode(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/pause"}, "Env": []string{"PATH=/usr/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []any{layerBlob["digest"]}},
	}))
	manifest := blob("application/vnd.oci.image.manifest.v1+json", encode(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []any{layerBlob},
	}))
	digest := manifest["digest"].(string)
	manifest["annotations"] = map[string]string{"io.containerd.image.name": Tag}
	all, err := archive(append([]entry{
		{name: "oci-layout", content: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{name: "index.json", content: encode(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})},
		{name: "blobs/", dir: true}, {name: "blobs/sha256/", dir: true},
	}, blobs...)...)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(file, all, 0o600); err != nil {
		return "", fmt.Errorf("node: %w", err)
	}
	return Repository + "@" + digest, nil
}

// encode writes what is sure to have a form in JSON.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // only maps, lists and strings come here
	}
	return text
}

// entry is one file of an archive, a directory, or a symbolic link.
type entry struct {
	name, link string
	dir        bool
	content    []byte
}

func archive(entries ...entry) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o755, Size: int64(len(e.content)), Typeflag: tar.TypeReg}
		switch {
		case e.dir:
			h.Typeflag = tar.TypeDir
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("node: write an archive: %w", err)
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, fmt.Errorf("node: write an archive: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("node: write an archive: %w", err)
	}
	return out.Bytes(), nil
}
