"""LoRA training: config, data, loss, network, loop, export; Ray stands in `ray_train` alone."""
