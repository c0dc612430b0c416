package control

// BoxTrouble is a kind of trouble that a box can have. Its Text is what is written down and
// told; the kind follows from that, so that pages can say it in their reader's language.
type BoxTrouble string

// The kinds of trouble.
const (
	BoxRefused       BoxTrouble = "quota"
	BoxUnschedulable BoxTrouble = "unschedulable"
	BoxImage         BoxTrouble = "image"
	BoxCrashes       BoxTrouble = "crash"
	BoxConfiguration BoxTrouble = "configuration"
	BoxSilent        BoxTrouble = "not_ready"
	BoxSlow          BoxTrouble = "slow"
	BoxCluster       BoxTrouble = "cluster"
	BoxStuck         BoxTrouble = "stuck"
)

// BoxTroubles lists them all.
func BoxTroubles() []BoxTrouble {
	return []BoxTrouble{
		BoxRefused, BoxUnschedulable, BoxImage, BoxCrashes, BoxConfiguration, BoxSilent, BoxSlow, BoxCluster, BoxStuck,
	}
}

// Text is what a customer reads of a kind of trouble: whether there is something to do about it. It
// names nothing of the cluster. A text that is changed has no kind where it was written down before.
func (k BoxTrouble) Text() string {
	switch k {
	case BoxRefused:
		return "its gateway is refused by a limit that is ours to correct"
	case BoxUnschedulable:
		return "there is no room for its gateway at the moment, which is ours to make"
	case BoxImage:
		return "its program cannot be loaded at the moment, which is ours to repair"
	case BoxCrashes:
		return "its gateway ends by itself soon after it has started"
	case BoxConfiguration:
		return "its gateway cannot be started as it is configured: check its settings, or ask support"
	case BoxSilent:
		return "its gateway runs, and does not answer"
	case BoxSlow:
		return "its gateway takes longer than usual"
	case BoxStuck:
		return "what was decided about it takes longer than usual, and is tried on"
	}
	return "something of it could not be done yet, and is tried again"
}

// BoxTroubleOf is the kind of trouble that a message tells of; "" for what is no such text.
func BoxTroubleOf(message string) BoxTrouble {
	for _, k := range BoxTroubles() {
		if message == k.Text() {
			return k
		}
	}
	return ""
}
