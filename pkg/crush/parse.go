package crush

// Forms says for people which forms of a map Parse reads.
const Forms = "a text map (`crushtool -d`)"

// Parse reads a map in any form: which one it is shows in the content.
func Parse(data []byte) (*Map, error) {
	return ParseText(data)
}
