#!/bin/sh
# Builds the images one after another and prints their sizes. `make images` calls this script. Settings, all from the environment:
#   setting          meaning                                         default
#   CONTAINER        docker, podman or buildah                       the first of these that is installed
#   REGISTRY         beginning of the images' names                  dubstage
#   VERSION          tag and label                                   the project's version
#   IMAGES           images to build                                 audio face motion texture render gateway suite workstation triton
#   BASE             image with Python 3.11, best with its digest    python:3.11-slim-bookworm
#   ACCELERATOR      cpu or cuda                                     cpu
#   TORCH_INDEX      pip arguments for torch alone                   PyTorch's own index for the CPU; empty for cuda
#   PYTORCH3D        address of a wheel of pytorch3d for face, texture, suite and workstation, which rasterise; their images then hold torch, for GPUs
#   PIP_ARGUMENTS    arguments for every pip install
#   PIP_CONF         a pip.conf that the build may read as a secret: neither the image nor its history holds the file
#   SOURCE           address of the source, for a label
#   BUILD_ARGUMENTS  further arguments of the build command
set -eu
cd "$(dirname "$0")/../.."

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
images=${IMAGES:-audio face motion texture render gateway suite workstation triton}
accelerator=${ACCELERATOR:-cpu}

case ${container##*/} in
    docker*) build=build ;;
    # OCI's own image format has no HEALTHCHECK.
    podman* | buildah*) build='build --format docker' ;;
    *)
        echo "CONTAINER is docker, podman or buildah, not '$container'" >&2
        exit 1
        ;;
esac

# Prints the build arguments of one image that charts/images/services.txt has, one per line.
arguments_of() {
    grep "^$1 " charts/images/services.txt | while read -r service code port import extras without description; do
        [ "$without" != - ] || without=
        printf '%s\n' "SERVICE=$service" "CODE=$code" "PORT=$port" "IMPORT=$import" "EXTRAS=$extras" "WITHOUT=$without" \
            "DESCRIPTION=$description"
    done
}

for name in $images; do
    if [ "$name" != triton ] && [ "$name" != workstation ] && ! grep -q "^$name " charts/images/services.txt; then
        echo "there is no image '$name'; there are: $(grep -v '^#' charts/images/services.txt | cut -d ' ' -f 1 | xargs) workstation triton" >&2
        exit 1
    fi
done
for name in $images; do
    set -- --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "SOURCE=${SOURCE:-}"
    case $name in
        triton)
            file=services/render/triton/Dockerfile
            [ "$accelerator" = cpu ] || file=$file.$accelerator
            ;;
        *)
            file=charts/images/Dockerfile
            target=service
            row=$name
            case $name in
                gateway) target=gateway ;;
                suite | workstation)
                    # With the arguments of the suite, the workstation takes over all layers of the suite.
                    target=$name
                    row=suite
                    set -- "$@" --build-arg SERVICES=services
                    ;;
            esac
            set -- "$@" --target "$target"
            while read -r argument; do
                set -- "$@" --build-arg "$argument"
            done << EOF
$(arguments_of "$row")
EOF
            ;;
    esac
    [ -z "${BASE:-}" ] || set -- "$@" --build-arg "BASE=$BASE"
    [ -z "${PIP_ARGUMENTS:-}" ] || set -- "$@" --build-arg "PIP_ARGUMENTS=$PIP_ARGUMENTS"
    [ -z "${PIP_CONF:-}" ] || set -- "$@" --secret "id=pip.conf,src=$PIP_CONF"
    case $name in
        render | suite | workstation)
            set -- "$@" --build-arg "ACCELERATOR=$accelerator"
            if [ "$accelerator" = cuda ] || [ -n "${TORCH_INDEX+given}" ]; then
                set -- "$@" --build-arg "TORCH_INDEX=${TORCH_INDEX:-}"
            fi
            ;;
    esac
    case $name in
        face | texture | suite | workstation)
            if [ -n "${PYTORCH3D:-}" ]; then
                set -- "$@" --build-arg "PYTORCH3D=$PYTORCH3D" --build-arg "TORCH_INDEX=${TORCH_INDEX:-}"
            fi
            ;;
    esac
    echo "== $registry/$name:$version ($file)"
    # shellcheck disable=SC2086  # the variables hold several words
    "$container" $build "$@" ${BUILD_ARGUMENTS:-} --file "$file" --tag "$registry/$name:$version" .
done

echo "== sizes"
case ${container##*/} in
    buildah*) "$container" images --format '{{.Name}}:{{.Tag}}  {{.Size}}' ;;
    *) "$container" images --format '{{.Repository}}:{{.Tag}}  {{.Size}}' ;;
esac | grep -F "$registry/" | grep -F ":$version " | sort
