#!/bin/sh
# Fill the folder $2 for nginx, whose user has the number $3: the certificate of $1 (tls.crt, the whole chain, and
# tls.key) or, while there is none, one for localhost that is made here; and tls.conf, from the folder that this is in.
set -eu
given=$1 folder=$2 user=$3

if [ -e "$given/tls.crt" ]; then
    cp --remove-destination "$given/tls.crt" "$given/tls.key" "$folder"
elif [ ! -e "$folder/tls.crt" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 365 \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout "$folder/tls.key" -out "$folder/tls.crt"
fi
cp --remove-destination "$(dirname "$0")/tls.conf" "$folder"
chmod 0400 "$folder/tls.key"
chown "$user" "$folder/tls.crt" "$folder/tls.key" "$folder/tls.conf"
