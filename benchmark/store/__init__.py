"""Every hash, and every folder that is renamed when whole: results, cache, and how both are cleaned."""
