"""From one YAML to Parquet tables: expand a sweep into trials, run what is missing with Ray Tune, read and report."""
