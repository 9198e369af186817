"""LoRA training: config, data, loss, network, loop, export; Ray stands in modules of that name alone."""
