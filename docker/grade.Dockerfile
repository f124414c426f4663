# The grader in a container: docker build -t irlbook-grade -f docker/grade.Dockerfile .
# Then: irlbook exercises grade SUBMISSIONS --container docker
FROM python:3.11-slim
# plain pip takes a CUDA build: --build-arg TORCH="torch --index-url ..." as pytorch.org shows for the CPU
ARG TORCH=torch
RUN pip install --no-cache-dir ${TORCH}
COPY pyproject.toml README.md LICENSE constraints.txt /book/
COPY irlbook /book/irlbook
# the checks hold their own references: the user that answers run as cannot open them
RUN pip install --no-cache-dir /book && rm -r /book \
 && chmod 700 "$(python -c 'import irlbook.exercises.chapters as c; print(c.__path__[0])')"
WORKDIR /tmp
ENTRYPOINT ["irlbook", "exercises", "grade"]
