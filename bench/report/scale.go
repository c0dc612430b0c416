package report

// scale writes what the runs of the scale subcommands say.
func (b *book) scale(p *page) {}

// scaleGoals are the rows that those runs are about.
func (b *book) scaleGoals() []goal { return nil }
