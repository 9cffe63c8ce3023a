"""Parts of tasks on sequences: masked language modelling."""
