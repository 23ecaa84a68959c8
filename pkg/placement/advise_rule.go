package placement

import (
	"fmt"
	"strconv"
)

// makeRule says which CRUSH rule, and which erasure-code profile, the pool needs.
func (a *Advice) makeRule() {
	take, mode := "take default", "firstn"
	if a.Policy.Class != "" {
		take += " class " + a.Policy.Class
	}
	if a.Type == "erasure" {
		mode = "indep"
		a.ECProfile = map[string]string{"k": strconv.Itoa(a.K), "m": strconv.Itoa(a.M), "crush-failure-domain": a.Domain}
		if a.Policy.Class != "" {
			a.ECProfile["crush-device-class"] = a.Policy.Class
		}
	}
	a.Rule = []string{take, fmt.Sprintf("chooseleaf %s 0 type %s", mode, a.Domain), "emit"}
	if a.Domain == "osd" {
		a.Rule[1] = fmt.Sprintf("choose %s 0 type osd", mode)
	}
}

// Commands make a pool of that name as advised; its rule and profile bear the name, too.
func (a *Advice) Commands(pool string) []string {
	class := ""
	if a.Policy.Class != "" {
		class = " " + a.Policy.Class
	}
	var list []string
	if a.Type == "erasure" {
		if class != "" {
			class = " crush-device-class=" + a.Policy.Class
		}
		list = append(list,
			fmt.Sprintf("ceph osd erasure-code-profile set %s k=%d m=%d crush-failure-domain=%s%s", pool, a.K, a.M, a.Domain, class),
			fmt.Sprintf("ceph osd pool create %s %d %d erasure %s", pool, a.PGs, a.PGs, pool))
	} else {
		list = append(list,
			fmt.Sprintf("ceph osd crush rule create-replicated %s default %s%s", pool, a.Domain, class),
			fmt.Sprintf("ceph osd pool create %s %d %d replicated %s", pool, a.PGs, a.PGs, pool),
			fmt.Sprintf("ceph osd pool set %s size %d", pool, a.Size))
	}
	return append(list, fmt.Sprintf("ceph osd pool set %s min_size %d", pool, a.MinSize))
}
