"""A task that does not exist: `/count` counts the words of a text. One module on each side."""
