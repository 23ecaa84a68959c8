package daemon

import (
	"fmt"
	"sort"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Caps are an entity's capabilities by service: mon, mgr, osd, mds.
type Caps map[string]string

// Entity is a user or a daemon in the eyes of cephx.
type Entity struct {
	Name string // "osd.0", "client.admin"
	Key  storage.Secret
	Caps Caps
}

// User returns a client's name without "client.", as Ceph's --id takes it.
func (e Entity) User() string { return strings.TrimPrefix(e.Name, "client.") }

// EncodeKeyring writes entities in the form of a keyring file. The result is secret.
func EncodeKeyring(entities ...Entity) []byte {
	var b strings.Builder
	for _, e := range entities {
		fmt.Fprintf(&b, "[%s]\n\tkey = %s\n", e.Name, e.Key.Reveal())
		services := make([]string, 0, len(e.Caps))
		for service := range e.Caps {
			services = append(services, service)
		}
		sort.Strings(services)
		for _, service := range services {
			fmt.Fprintf(&b, "\tcaps %s = \"%s\"\n", service, e.Caps[service])
		}
	}
	return []byte(b.String())
}

// ParseKeyring reads the key of one entity from a keyring file, fault.NotFound when
// the entity is not in it. Errors never carry text of the file.
func ParseKeyring(data []byte, entity string) (storage.Secret, error) {
	inside := false
	for _, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			inside = line == "["+entity+"]"
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if !inside || !found || strings.TrimSpace(name) != "key" {
			continue
		}
		key := strings.TrimSpace(value)
		if err := CheckKey(key); err != nil {
			return storage.Secret{}, fault.New(fault.Invalid, "keyring entry %s: %w", entity, err)
		}
		return storage.NewSecret(key), nil
	}
	return storage.Secret{}, fault.New(fault.NotFound, "the keyring has no entry %s", entity)
}
