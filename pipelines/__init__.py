"""Adversarial nets as a pipeline: Ray Tune searches, Ray Train trains, a Parzen window judges, MLflow keeps."""
