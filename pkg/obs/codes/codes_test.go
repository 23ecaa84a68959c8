package codes

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// constants reads the codes from the source, so that none can be forgotten here.
func constants(t *testing.T) []Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var list []Code
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Code" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, Code(text))
		}
		return true
	})
	return list
}

func TestEveryCodeIsExplained(t *testing.T) {
	declared := constants(t)
	if len(declared) == 0 || len(declared) != len(All()) {
		t.Fatalf("%d codes are declared, %d have texts", len(declared), len(All()))
	}
	for _, code := range declared {
		text, ok := Explain(code)
		if !ok {
			t.Errorf("%s has no text", code)
			continue
		}
		v := reflect.ValueOf(text)
		for i := range v.NumField() {
			if strings.TrimSpace(v.Field(i).String()) == "" {
				t.Errorf("%s: %s is empty", code, v.Type().Field(i).Name)
			}
		}
	}
}

func TestNoOtherCodeIsUsedAnywhere(t *testing.T) {
	pattern := regexp.MustCompile(`HF-[A-Z]+(-[A-Z]+)*`)
	for _, dir := range []string{"../../../pkg", "../../../csi", "../../../cmd"} {
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			data, err := os.ReadFile(path)
			for _, code := range pattern.FindAllString(string(data), -1) {
				if _, ok := Explain(Code(code)); !ok {
					t.Errorf("%s uses %s, which is not in the vocabulary", path, code)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
