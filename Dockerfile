# Image of all roles: agent, controller and cleanup. The base is Debian, because PyPI has no package of bcc and Debian has
# python3-bpfcc. All steps are independent of the architecture.

# Debian packages. LLVM has the largest share.
FROM docker.io/library/debian:trixie-slim AS base
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-bpfcc \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /var/lib/dpkg/*-old \
      /usr/share/bash-completion /usr/share/gcc /usr/share/gdb /usr/share/info /usr/share/lintian /usr/share/locale \
      /usr/share/man /usr/lib/python3.*/ensurepip /usr/lib/python3.*/idlelib /usr/lib/python3.*/pydoc_data \
      /usr/lib/python3.*/tkinter /usr/lib/python3.*/turtle.py \
 && find /usr/share/doc -type f ! -name copyright -delete \
 && find /usr/share/doc -type d -empty -delete


FROM base AS build
ARG DEBIAN_FRONTEND=noninteractive
# Save the package list of the base before the build adds packages.
RUN cp /var/lib/dpkg/status /base.control \
 && apt-get update \
 && apt-get install --yes --no-install-recommends python3-pip python3-venv \
 && python3 -m venv /build
# Unpack the kernel headers instead of installing them, because their packages depend on a compiler.
RUN headers=$(apt-cache depends "linux-headers-$(dpkg --print-architecture)" | sed -n 's/^ *Depends: //p') \
 && common=$(apt-cache depends "$headers" | sed -n 's/^ *Depends: \(linux-headers-.*-common\)$/\1/p') \
 && mkdir /debs && chown _apt /debs && cd /debs && apt-get download "$headers" "$common" \
 && for deb in *.deb; do dpkg -x "$deb" / && dpkg-deb --field "$deb" && echo; done >/headers.control \
 && mkdir -p /opt/tokenbucket/share/doc/kernel-headers \
 && cp "/usr/share/doc/$common/copyright" /opt/tokenbucket/share/doc/kernel-headers/

WORKDIR /src
COPY requirements requirements
RUN /build/bin/pip install --disable-pip-version-check --no-cache-dir --constraint requirements/dev.txt hatchling \
 && python3 -m venv --without-pip /opt/tokenbucket \
 && /build/bin/pip --python /opt/tokenbucket/bin/python install --disable-pip-version-check --no-cache-dir \
      --no-deps --no-compile --only-binary :all: --requirement requirements/image.txt

COPY . .
# Time of the commit, so that builds of one commit are identical.
ARG SOURCE_DATE_EPOCH
# With -I, environment variables of the container do not affect the imports of the command.
RUN /build/bin/pip wheel --disable-pip-version-check --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && /build/bin/pip --python /opt/tokenbucket/bin/python install --disable-pip-version-check --no-deps --no-compile \
      --no-index --find-links /dist tokenbucket \
 && find /opt/tokenbucket/bin ! -type d ! -name 'python*' ! -name tokenbucket -delete \
 && sed -i '1s/$/ -I/' /opt/tokenbucket/bin/tokenbucket \
 && find /opt/tokenbucket/lib \( -name '*.pyx' -o -name '*.pxd' -o -name '*.[ch]' ! -path '*/_bpf_source/*' \) -delete \
 && /opt/tokenbucket/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/tokenbucket/lib
RUN /opt/tokenbucket/bin/python -B hack/kernel_headers.py /opt/tokenbucket/share/kernel-headers
ARG VERSION=0
ARG REVISION=unknown
RUN python3 -B hack/sbom.py --version "$VERSION" --revision "$REVISION" \
      --debian /base.control --debian /headers.control \
      --python /opt/tokenbucket/lib/python3.*/site-packages >/sbom.spdx.json


FROM base
COPY --from=build /opt/tokenbucket /opt/tokenbucket
COPY --from=build /sbom.spdx.json /usr/share/sbom/tokenbucket.spdx.json
# bcc writes to TMPDIR. All other writes go to bpffs.
# The malloc variables save 5 MiB of memory. One arena is enough, because Python threads hold a common lock. Fixed
# thresholds return the memory of a large API response to the kernel.
ENV PATH=/opt/tokenbucket/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    TMPDIR=/tmp \
    MALLOC_ARENA_MAX=1 \
    MALLOC_MMAP_THRESHOLD_=131072 \
    MALLOC_TRIM_THRESHOLD_=131072 \
    TOKENBUCKET_KERNEL_HEADERS=/opt/tokenbucket/share/kernel-headers
ENTRYPOINT ["/opt/tokenbucket/bin/python", "-I", "-m", "tokenbucket"]
# The agent needs root. The chart runs the other roles as another user.
USER 0:0
ARG VERSION=0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="tokenbucket" \
      org.opencontainers.image.description="Rate limits for pods: token buckets in eBPF" \
      org.opencontainers.image.url="https://github.com/tokenbucket/tokenbucket" \
      org.opencontainers.image.source="https://github.com/tokenbucket/tokenbucket" \
      org.opencontainers.image.licenses="Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
