"""ModelAdapters of the families that come with the library, one module each."""
