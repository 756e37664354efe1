#!/bin/sh
# Builds the images one after another and prints their sizes; `make images` calls it. Settings, all from the environment:
#   CONTAINER        docker, podman or buildah; the first of these that is installed
#   REGISTRY         what names begin with                           dubstage
#   VERSION          tag and label                                   the project's
#   IMAGES           which                                           audio face motion texture render gateway triton
#   BASE             image with Python 3.11, best with its digest    python:3.11-slim-bookworm
#   ACCELERATOR      cpu or cuda                                     cpu
#   TORCH_INDEX      pip arguments for torch alone                   PyTorch's own index for the CPU; empty for cuda
#   PYTORCH3D        address of a wheel for face and texture, which rasterise: with torch in their images, for GPUs
#   PIP_ARGUMENTS    for every pip install
#   PIP_CONF         a pip.conf that the build may read; as a secret, so that the image knows nothing of it
#   SOURCE           address of the source, for a label
#   BUILD_ARGUMENTS  anything else for the build command
set -eu
cd "$(dirname "$0")/.."

container=${CONTAINER:-}
if [ -z "$container" ]; then
    for container in docker podman buildah ''; do
        if [ -z "$container" ]; then
            echo "images are built by docker, podman or buildah; none of them is installed" >&2
            exit 1
        fi
        command -v "$container" > /dev/null && break
    done
fi
registry=${REGISTRY:-dubstage}
version=${VERSION:-$(sed -n '/^\[project\]/,/^\[/s/^version = "\(.*\)"/\1/p' pyproject.toml)}
revision=$(git describe --always --abbrev=40 --dirty --match '' 2> /dev/null || echo unknown)
images=${IMAGES:-audio face motion texture render gateway triton}
accelerator=${ACCELERATOR:-cpu}

case ${container##*/} in
    docker*) build=build ;;
    # OCI's own format has no HEALTHCHECK.
    podman* | buildah*) build='build --format docker' ;;
    *)
        echo "CONTAINER is docker, podman or buildah, not '$container'" >&2
        exit 1
        ;;
esac

for name in $images; do
    case $name in
        gateway) file=gateway/Dockerfile ;;
        triton)
            file=services/render/triton/Dockerfile
            [ "$accelerator" = cpu ] || file=$file.$accelerator
            ;;
        *) file=services/$name/Dockerfile ;;
    esac
    set -- --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "SOURCE=${SOURCE:-}"
    [ -z "${BASE:-}" ] || set -- "$@" --build-arg "BASE=$BASE"
    [ -z "${PIP_ARGUMENTS:-}" ] || set -- "$@" --build-arg "PIP_ARGUMENTS=$PIP_ARGUMENTS"
    [ -z "${PIP_CONF:-}" ] || set -- "$@" --secret "id=pip.conf,src=$PIP_CONF"
    if grep -q '^ARG ACCELERATOR' "$file"; then
        set -- "$@" --build-arg "ACCELERATOR=$accelerator"
        if [ "$accelerator" = cuda ] || [ -n "${TORCH_INDEX+given}" ]; then
            set -- "$@" --build-arg "TORCH_INDEX=${TORCH_INDEX:-}"
        fi
    fi
    if [ -n "${PYTORCH3D:-}" ] && grep -q '^ARG PYTORCH3D' "$file"; then
        set -- "$@" --build-arg "PYTORCH3D=$PYTORCH3D" --build-arg "TORCH_INDEX=${TORCH_INDEX:-}"
    fi
    echo "== $registry/$name:$version ($file)"
    # shellcheck disable=SC2086  # words of their own
    "$container" $build "$@" ${BUILD_ARGUMENTS:-} --file "$file" --tag "$registry/$name:$version" .
done

echo "== sizes"
case ${container##*/} in
    buildah*) "$container" images --format '{{.Name}}:{{.Tag}}  {{.Size}}' ;;
    *) "$container" images --format '{{.Repository}}:{{.Tag}}  {{.Size}}' ;;
esac | grep -F "$registry/" | grep -F ":$version " | sort
