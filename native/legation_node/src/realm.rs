//! One realm: its processes, names, engines.
