# TensorFlow Serving with one version of the model inside: what was tested is what runs.
#
#   docker build -f serving/k8s/image/baked.Dockerfile \
#     --build-arg VERSION=2 -t registry.example/shop/recommender-serving:2 \
#     output/serving/recommender
#
# The context is the folder of the version folders. Pin the digest of the first image in a build
# that has to be repeatable.
FROM tensorflow/serving:2.19.1

ARG VERSION
# No owner and no right to write: the server only reads.
COPY --chmod=0555 ${VERSION} /models/recommender/${VERSION}
RUN test -f /models/recommender/${VERSION}/saved_model.pb

# A number, so that Kubernetes can see that it is not root's.
USER 10001:10001
EXPOSE 8500 8501
ENTRYPOINT ["tensorflow_model_server"]
CMD ["--port=8500", "--rest_api_port=8501", "--model_name=recommender", \
     "--model_base_path=/models/recommender", "--enable_grpc_healthcheck_service=true"]
