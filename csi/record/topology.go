package record

// Settings are the StorageClass's parameters as they are at the volume's place.
func (r *Record) Settings() map[string]string { return r.Place.Apply(r.Parameters) }
