"""The method's own verbs of the `tiekd` command. Heavy imports happen inside them: `--help` is quick."""
