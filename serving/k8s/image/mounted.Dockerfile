# TensorFlow Serving for models that are mounted at /models, from a bucket or a volume: one image for
# all versions of the model.
#
#   docker build -f serving/k8s/image/mounted.Dockerfile \
#     -t registry.example/shop/model-server:2.19.1 serving/k8s/image
FROM tensorflow/serving:2.19.1

# Empty, so that a mount that is missing shows at once: the server ends for want of a model.
RUN mkdir -p /models/recommender
VOLUME /models

USER 10001:10001
EXPOSE 8500 8501
ENTRYPOINT ["tensorflow_model_server"]
CMD ["--port=8500", "--rest_api_port=8501", "--model_name=recommender", \
     "--model_base_path=/models/recommender", "--file_system_poll_wait_seconds=30", \
     "--enable_grpc_healthcheck_service=true"]
