"""Loading the model in less time; `fast_load: false` turns all of it off."""
