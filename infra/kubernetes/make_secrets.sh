#!/bin/sh
# Prints the Secrets of infra/kubernetes with new passwords: make_secrets.sh | kubectl apply --namespace effnet -f -
set -eu
eval "$("$(dirname "$0")/../docker/make_secrets.sh")"

secret() {
    name=$1
    shift
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData:\n' "$name"
    printf '  %s\n' "$@"
}

secret effnet-postgres "PGPASSWORD: $POSTGRES_PASSWORD"
secret effnet-store "AWS_ACCESS_KEY_ID: $S3_ACCESS_KEY" "AWS_SECRET_ACCESS_KEY: $S3_SECRET_KEY"
secret effnet-clients "PREFECT_API_AUTH_STRING: effnet:$PREFECT_PASSWORD" \
    "MLFLOW_TRACKING_USERNAME: effnet" "MLFLOW_TRACKING_PASSWORD: $MLFLOW_PASSWORD"
secret effnet-prefect "PREFECT_SERVER_API_AUTH_STRING: effnet:$PREFECT_PASSWORD"
secret effnet-mlflow "MLFLOW_AUTH_ADMIN_USERNAME: effnet" "MLFLOW_AUTH_ADMIN_PASSWORD: $MLFLOW_PASSWORD" \
    "MLFLOW_FLASK_SERVER_SECRET_KEY: $MLFLOW_SESSION_KEY"
