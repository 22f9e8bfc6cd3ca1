# The suite with the packages that it is tested with:
#     docker build --tag bench .
#     docker run --rm --volume "$PWD:/here" bench run --methods pca,vae --tasks ood --preset smoke
FROM python:3.11-slim
COPY requirements.lock /src/
RUN pip install --no-cache-dir --requirement /src/requirements.lock
COPY . /src
RUN pip install --no-cache-dir --no-deps --no-build-isolation /src
WORKDIR /here
ENTRYPOINT ["bench"]
