"""Flags, YAML files and keywords to a command's dataclass."""
