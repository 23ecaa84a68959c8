package osdmap_test

import (
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

const small = `{"epoch":3,"max_osd":2,"pools":[{"pool":1,"pool_name":"p","flags":1,"type":1,"size":2,"min_size":1,"crush_rule":0,"pg_num":8,"pg_placement_num":8}],
"osds":[{"osd":0,"up":1,"in":1,"weight":1.0,"primary_affinity":0.5}],"pg_upmap":[{"pgid":"1.0","osds":[1,0]}],
"pg_upmap_items":[{"pgid":"1.1","mappings":[{"from":0,"to":1}]}],"pg_temp":[{"pgid":"1.2","osds":[1]}],"primary_temp":["1.3",1,"1.4",0]}`

func TestParseReadsOverridesAndSkipsChatter(t *testing.T) {
	m, err := osdmap.Parse([]byte("osdmaptool: osdmap file 'om'\n" + small))
	if err != nil {
		t.Fatal(err)
	}
	if m.PrimaryTemp[osdmap.PG{Pool: 1, Seed: 4}] != 0 || m.PrimaryTemp[osdmap.PG{Pool: 1, Seed: 3}] != 1 || len(m.Upmap) != 1 || len(m.UpmapItems) != 1 {
		t.Fatalf("%+v", m)
	}
	if !m.OSDs[0].Exists || m.OSDs[1].Exists || m.OSDs[0].Affinity != osdmap.FullAffinity/2 || m.Existing() != 1 {
		t.Fatalf("%+v", m.OSDs)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(`{"max_osd":1,"pools":[{"pool":1,"type":3,"size":1,"pg_num":1,"pg_placement_num":1}],"primary_temp":[{"pgid":"1.0","osd":0}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := osdmap.Parse(data)
		if err != nil {
			return
		}
		for _, p := range m.Pools {
			m.DataShards(&p)
		}
		m.MarkUpIn()
	})
}
