// Sets that keep the order in which they were made: what = += and -= work on.

package xinetd

// An ordered has one value for each key, in the order of adding.
type ordered[K comparable, V any] struct {
	at  map[K]int // in all
	all []held[V]
}

type held[V any] struct {
	v    V
	gone bool
}

// put adds a value, or replaces that of its key in its place.
func (o *ordered[K, V]) put(k K, v V) {
	if i, ok := o.at[k]; ok {
		o.all[i].v = v
		return
	}
	if o.at == nil {
		o.at = make(map[K]int)
	}
	o.at[k] = len(o.all)
	o.all = append(o.all, held[V]{v: v})
}

func (o *ordered[K, V]) has(k K) bool {
	_, ok := o.at[k]
	return ok
}

func (o *ordered[K, V]) drop(k K) {
	if i, ok := o.at[k]; ok {
		o.all[i].gone = true
		delete(o.at, k)
	}
}

// list has the values; nil if there are none.
func (o *ordered[K, V]) list() (list []V) {
	for _, h := range o.all {
		if !h.gone {
			list = append(list, h.v)
		}
	}
	return list
}
