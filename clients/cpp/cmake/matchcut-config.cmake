# find_package(matchcut) gives the target matchcut::matchcut.
include(CMakeFindDependencyMacro)
find_dependency(Protobuf)
find_dependency(OpenSSL COMPONENTS Crypto)
find_dependency(Threads)
find_dependency(PkgConfig)
pkg_check_modules(GRPC REQUIRED IMPORTED_TARGET grpc++)
include(${CMAKE_CURRENT_LIST_DIR}/matchcut-targets.cmake)
