"""The built-in strategies, a package each: plugins like any other, found through the entry points."""
