"""The stages of a run, a module each: tune, train, train_encoder, evaluate, register, report; and few_labels.

`table` declares them in their order; `training_driver` is what both trainings share.

`table` declares them; `training_driver` runs both trainings.

May import every room but `serving`, `flow` and `cli`; no stage imports another one's work. What enters is a run and its
data set; what leaves is the stage's record.
"""
