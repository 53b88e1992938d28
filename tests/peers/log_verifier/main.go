// SPDX-License-Identifier: Apache-2.0

// An independent verifier of the audit log's tiles, on golang.org/x/mod/sumdb: log_verifier DIR VKEY [OLD-CHECKPOINT].
//
// It opens the signed checkpoint, authenticates every tile against its root, hashes every entry and compares it with
// its leaf, proves some records, and proves that an older checkpoint is the beginning of the log.  It shares no line
// with everyhop.  Exit code 0 intact, 1 otherwise.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8
const width = 1 << height
const batch = 16 * width

type directory struct{ root string }

func (d directory) Height() int { return height }

func (d directory) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles reads what tlog names tile/8/L/N; C2SP leaves the height out.
func (d directory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range tiles {
		path := strings.Replace(t.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(d.root, path))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func check(err error) {
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
}

func refuse(format string, args ...any) { check(fmt.Errorf(format, args...)) }

func open(path string, verifiers note.Verifiers, name string) tlog.Tree {
	data, err := os.ReadFile(path)
	check(err)
	opened, err := note.Open(data, verifiers)
	check(err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != name {
		refuse("not a checkpoint of %s", name)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	hash, err := tlog.ParseHash(lines[2])
	check(err)
	return tlog.Tree{N: size, Hash: hash}
}

func bundle(root string, n, size int64) [][]byte {
	tile := tlog.Tile{H: height, L: 0, N: n, W: width}
	if rest := size - n*width; rest < width {
		tile.W = int(rest)
	}
	path := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(root, path))
	check(err)
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			refuse("a bundle ends within an entry")
		}
		length := int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:2+length])
		data = data[2+length:]
	}
	if len(entries) != tile.W {
		refuse("%d entries in a bundle of %d", len(entries), tile.W)
	}
	return entries
}

func main() {
	root, vkey := os.Args[1], os.Args[2]
	verifier, err := note.NewVerifier(vkey)
	check(err)
	verifiers := note.VerifierList(verifier)
	tree := open(filepath.Join(root, "checkpoint"), verifiers, verifier.Name())
	reader := tlog.TileHashReader(tree, directory{root})
	for start := int64(0); start < tree.N; start += batch {
		end := min(start+batch, tree.N)
		var indexes []int64
		for i := start; i < end; i++ {
			indexes = append(indexes, tlog.StoredHashIndex(0, i))
		}
		hashes, err := reader.ReadHashes(indexes)
		check(err)
		for n := start / width; n*width < end; n++ {
			for k, entry := range bundle(root, n, tree.N) {
				i := n*width + int64(k)
				if tlog.RecordHash(entry) != hashes[i-start] {
					refuse("entry %d is not its leaf", i)
				}
			}
		}
	}
	for _, i := range []int64{0, tree.N / 2, tree.N - 1} {
		proof, err := tlog.ProveRecord(tree.N, i, reader)
		check(err)
		leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, i)})
		check(err)
		check(tlog.CheckRecord(proof, tree.N, tree.Hash, i, leaf[0]))
	}
	if len(os.Args) > 3 {
		old := open(os.Args[3], verifiers, verifier.Name())
		if old.N > tree.N {
			refuse("%d records were signed for, and %d are there", old.N, tree.N)
		}
		proof, err := tlog.ProveTree(tree.N, old.N, reader)
		check(err)
		check(tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash))
	}
	fmt.Println("intact:", tree.N)
}
