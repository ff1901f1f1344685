"""What a search is made of: candidates, trials, schedulers, findings, ranking; `pipelines.tune` is the stage."""
