-- Run once by the postgres image, on an empty volume; POSTGRES_DB made the database `dagster`.
CREATE DATABASE mlflow;
CREATE DATABASE decisions;
