# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
#
# For builds against the ROS wheels of PyPI; passed as -DCMAKE_PROJECT_INCLUDE=<this file>.
# Two things stop CMake there, both about include directories that targets hand on, and both
# are put right once the whole of CMakeLists.txt has run.

# The targets that the wheels export name Python's include directory on the machine that built
# them (/opt/python/...): drop those that are not there.
function(drop_missing_python_includes)
  get_property(imported_targets DIRECTORY "${CMAKE_SOURCE_DIR}" PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS imported_targets)
    get_target_property(include_dirs ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT include_dirs)
      continue()
    endif()
    set(present_dirs "")
    foreach(include_dir IN LISTS include_dirs)
      if(include_dir MATCHES "^/opt/python/" AND NOT EXISTS "${include_dir}")
        continue()
      endif()
      list(APPEND present_dirs "${include_dir}")
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${present_dirs}")
  endforeach()
endfunction()

# Our own Python target hands on numpy's headers, and CMake exports no directory below the
# source tree, where the virtual environment may be: keep those for the build alone.
function(keep_source_tree_includes_for_the_build)
  get_property(targets DIRECTORY "${CMAKE_SOURCE_DIR}" PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(include_dirs ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT include_dirs)
      continue()
    endif()
    set(exportable_dirs "")
    foreach(include_dir IN LISTS include_dirs)
      string(FIND "${include_dir}" "${CMAKE_SOURCE_DIR}/" position)
      if(position EQUAL 0)
        set(include_dir "$<BUILD_INTERFACE:${include_dir}>")
      endif()
      list(APPEND exportable_dirs "${include_dir}")
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${exportable_dirs}")
  endforeach()
endfunction()

cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL drop_missing_python_includes)
cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}"
               CALL keep_source_tree_includes_for_the_build)
