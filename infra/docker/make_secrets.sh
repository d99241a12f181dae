#!/bin/sh
# Prints new passwords for compose.yaml and infra/kubernetes: make_secrets.sh > .env
set -eu
umask 077
for name in POSTGRES_PASSWORD S3_SECRET_KEY PREFECT_PASSWORD MLFLOW_PASSWORD MLFLOW_SESSION_KEY; do
    echo "$name=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
done
echo "S3_ACCESS_KEY=effnet-$(od -An -N6 -tx1 /dev/urandom | tr -d ' \n')"
