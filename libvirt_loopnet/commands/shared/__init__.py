"""What several verbs share: options, tables, what a network's guests are."""
