"""The release, as workers report it and pages show it."""

VERSION = "0.1.0"
