package placement

import "math"

// network is a flow network with whole capacities (Dinic's algorithm).
type network struct {
	head  []int32 // by node: its last arc, or -1
	arcs  []arc
	level []int32
	next  []int32
	queue []int32
}

// arc goes to a node; arcs 2i and 2i+1 are each other's reverse.
type arc struct {
	to, next int32
	left     int64
}

const unlimited = math.MaxInt64 / 4

func (n *network) node() int32 {
	n.head = append(n.head, -1)
	return int32(len(n.head) - 1)
}

// connect adds an arc and returns its number.
func (n *network) connect(from, to int32, capacity int64) int32 {
	i := int32(len(n.arcs))
	n.arcs = append(n.arcs, arc{to, n.head[from], capacity}, arc{from, n.head[to], 0})
	n.head[from], n.head[to] = i, i+1
	return i
}

// push sends as much as can go and returns how much it was.
func (n *network) push(source, sink int32) int64 {
	var sum int64
	for n.layers(source, sink) {
		n.next = append(n.next[:0], n.head...)
		for {
			sent := n.augment(source, sink, unlimited)
			if sent == 0 {
				break
			}
			sum += sent
		}
	}
	return sum
}

// layers numbers the nodes by their distance from the source.
func (n *network) layers(source, sink int32) bool {
	if len(n.level) != len(n.head) {
		n.level = make([]int32, len(n.head))
	}
	for i := range n.level {
		n.level[i] = -1
	}
	n.level[source] = 0
	n.queue = append(n.queue[:0], source)
	for at := 0; at < len(n.queue); at++ {
		from := n.queue[at]
		for i := n.head[from]; i >= 0; i = n.arcs[i].next {
			if a := n.arcs[i]; a.left > 0 && n.level[a.to] < 0 {
				n.level[a.to] = n.level[from] + 1
				n.queue = append(n.queue, a.to)
			}
		}
	}
	return n.level[sink] >= 0
}

// augment sends up to most along the layers; their number bounds the recursion.
func (n *network) augment(from, sink int32, most int64) int64 {
	if from == sink {
		return most
	}
	var sent int64
	for ; n.next[from] >= 0; n.next[from] = n.arcs[n.next[from]].next {
		i := n.next[from]
		a := &n.arcs[i]
		if a.left == 0 || n.level[a.to] != n.level[from]+1 {
			continue
		}
		got := n.augment(a.to, sink, min(most-sent, a.left))
		n.arcs[i].left -= got
		n.arcs[i^1].left += got
		if sent += got; sent == most {
			return sent
		}
	}
	return sent
}
