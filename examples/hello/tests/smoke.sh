#!/bin/sh
# What a user would see, asked of the running service.
set -eu
page=$(wget -q -O - "http://web:8080/")
echo "$page"
case "$page" in *"hello from pipe"*) ;; *) echo "the page does not greet" >&2; exit 1 ;; esac
version=$(wget -q -O - "http://web:8080/version")
echo "version $version"
test -n "$version"
